"""The adapters, trained by `finetune`: those of each toolset, and the one that chooses the toolset."""
