"""Run the stages of a recipe and train on what they make.

From the bottom: recipes, inputs, what runs a step (execution), the steps, the stages made of them, the questions to a
run (analysis), what keeps it whole (maintenance), its report, and the command line. Beside them stand the GPT with
its trainer and sampler, the measures of quality (evaluation), the layout of LlamaGen, and the demo.
"""
