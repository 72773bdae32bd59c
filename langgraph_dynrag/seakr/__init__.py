"""SeaKR (Yao et al. 2024): the uncertainty of sampled answers, and the decisions based on it."""
