"""The ComfyUI door: what its clients and its frontend ask for, translated into graphs and jobs and back."""
