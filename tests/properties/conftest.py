"""Properties run without a deadline: the machine may be busy, and a slow example is no defect."""

from hypothesis import settings

settings.register_profile("claudemesh", deadline=None, max_examples=150)
settings.load_profile("claudemesh")
