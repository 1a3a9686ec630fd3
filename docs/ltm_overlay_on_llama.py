"""Any instruct GGUF under an overlay: python docs/ltm_overlay_on_llama.py [MODEL.gguf] < requests.txt."""

import sys

from ltm_edge import Bundle

with Bundle.open(sys.argv[1] if len(sys.argv) > 1 else None) as bundle, bundle.session() as session:
    for line in sys.stdin:
        reply = session.send(line)
        print(f"[{reply.scene.tension if reply.scene else 'cut off'}] {reply.text}")
