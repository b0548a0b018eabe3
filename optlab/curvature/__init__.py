"""Curvature: the matrices P of ``theta <- theta - eta * P^-1 g``, and what is asked of them."""
