"""SeaKR (Yao et al. 2024): uncertainty of sampled answers, and the choices that are made by it."""
