"""What ``tinysight doctor`` does: see whether this machine can be an agent, and say exactly what to do when not.

`plan` says what is checked and runs it, each check in a child process of its own (`child`) with a time-out, so that a
driver that hangs or a library that crashes is a finding and not the end. `subject` is what is checked: a configuration,
flags, or nothing. `machine`, `places`, `model`, `broker`, `fleet` and `camera` are the checks.
"""
