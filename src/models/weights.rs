//! Weights files: safetensors under the names and layouts of the original state dicts.
