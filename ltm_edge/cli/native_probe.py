"""Loads the extension and prints what it says, as one JSON line. `doctor` runs this in a process of its own:
a llama.cpp that was built for another CPU ends the process that loads it."""

from __future__ import annotations

import json


def probe() -> dict[str, object]:
    """What the extension says of llama.cpp and the devices; `{"error": …}` if it doesn't load."""
    try:
        from ltm_edge.native import core

        native = core()
        return {
            "llama_version": native.llama_version(),
            "system_info": native.system_info(),
            "gpu_offload": native.supports_gpu_offload(),
            "devices": [
                {
                    "name": device.name,
                    "description": device.description,
                    "type": device.type,
                    "memory_free": device.memory_free,
                    "memory_total": device.memory_total,
                }
                for device in native.devices()
            ],
        }
    except (ImportError, RuntimeError, OSError) as error:
        return {"error": str(error)}


if __name__ == "__main__":
    print(json.dumps(probe()))
