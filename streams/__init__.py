"""
The flow: Kafka in, Kafka and Redis out.

Events enter through `wire` and `kafka`, are folded into user state in `interests`, ranked against the
`catalogue` in `refresh`, under the experiments of `experiments`, and leave as lists. `roles` wires these parts
into what a pod runs: the interest worker, the signals worker and the encoder worker. `models` holds the maths.
"""
