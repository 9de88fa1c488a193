"""The benchmark of the engine: `python -m core.bench --model_path models/tiny-bagel`."""
