"""How long a test waits for what must happen.

None of these is a measure: each says only what a hang costs, and is far above what was seen on a machine whose cores
were busy with several other programs. What a test is about is an event, which it waits for.
"""

# A process of ours answers, starts or ends; below the 300 s that stray processes of tests would live by themselves.
PROCESS = 240.0
# A training run on the real stack trains its steps, or ends.
RUN = 2400.0
# A whole test that starts such runs, for pytest-timeout.
STACK_TEST = 3600
