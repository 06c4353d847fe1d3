"""
The flow: Kafka in, Kafka and Redis out.

Events enter through `wire` and `kafka`, are folded into user state in `interests`, ranked against the `catalogue` in
`refresh`, under the experiments of `experiments`, and leave as lists. Items become vectors in `encoding`, and what
happens to them becomes popularity in `signals`. `roles` wires these parts into what a pod runs: the interest worker,
the signals worker and the encoder worker. `commands` is the command line, on a `local` Kafka and Redis with the logs
of `datasets` if you like. `models` holds the maths.
"""
