"""Prompts as vLLM has them: dictionaries."""

TokensPrompt = dict
TextPrompt = dict
