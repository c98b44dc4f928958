"""Learning rewards from data: heads on sentence embeddings, and pairwise reward models.

`heads.train_head` learns from labelled or rated text, `pairs.train_reward` from preferences. Both hold out a part of
the data by prompt, judge what they learned on it beside what length alone gives, and leave a card in the folder.
"""
