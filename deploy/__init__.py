"""A cluster on one machine: Flink and Spark from Maven's libraries, started, tried and ended by make."""
