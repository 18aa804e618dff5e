"""The VAEs of the paper's shallow study: one group of latents, and small networks."""
