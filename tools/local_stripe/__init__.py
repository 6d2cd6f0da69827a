"""A small Stripe: the part of its API that billing uses, over HTTP, with memory and on demand with faults.

``python -m tools.local_stripe --port P --data FILE --key sk_test_…`` serves tests and a platform without a key of its
own. It speaks the version of the API that the installed ``stripe`` library pins, and it imports nothing of ``app``.
"""
