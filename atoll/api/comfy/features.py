"""What this server tells clients that it can do, and as which ComfyUI it answers."""

from __future__ import annotations

from typing import Any

from atoll.artifacts.input_files import MAX_UPLOAD_BYTES

COMFYUI_VERSION = "0.3.64"  # whose interface this is; the frontend 1.27.10 is its own
FRONTEND_VERSION = "1.27.10"
FRONTEND_PACKAGE = "comfyui-frontend-package"
FRONTEND_MODULE = "comfyui_frontend_package"

SERVER_FEATURES: dict[str, Any] = {
    "supports_preview_metadata": True,
    "max_upload_size": MAX_UPLOAD_BYTES,
    "extension": {"manager": {"supports_v4": False}},
    "node_replacements": False,
    "assets": False,
}
