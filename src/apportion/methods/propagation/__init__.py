"""Layer-wise relevance propagation: rules, the operations they meet, composites, and the ledger."""
