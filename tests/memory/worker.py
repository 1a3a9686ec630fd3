"""A process that uses a memory until it is killed: `worker.py FOLDER SEED`. What it prints has been acknowledged."""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from ltm_edge.memory.store import new_uid
from ltm_edge.scene.record import Scene
from ltm_edge.scene_memory import SceneMemory
from tests.memory.hashed import HashedEmbedder


def main(folder: str, seed: int) -> None:
    rng = random.Random(seed)
    word = 0
    with SceneMemory.open(folder, HashedEmbedder()) as memory:
        template = io.StringIO()
        print("ready", flush=True)
        while True:
            word += 1
            deed = rng.random()
            if deed < 0.7:
                text = f"seed{seed}word{word} {rng.random()}"
                scene = Scene((("you", "guest"),), "work vs rest", ("host",), "a day", f"Reply to {text}.")
                done = memory.add(scene, text=text, session=f"s{seed}")
                print(f"added {done.id} {text}", flush=True)
            elif deed < 0.8:
                memory.consolidate()
            elif deed < 0.9:
                memory.compact()
            else:
                template = io.StringIO()
                memory.export(template)
                lines = template.getvalue().splitlines()
                scenes = [line for line in lines if '"kind":"scene"' in line][-40:]
                renamed = []
                for line in scenes:
                    before, _, after = line.partition('"uid":"')
                    renamed.append(f'{before}"uid":"{new_uid()}{after[32:]}')
                head = f"{lines[0]}\n" + "\n".join(renamed) + "\n"
                plain = head.replace('"superseded_by":"', '"superseded_by":null,"x":"')
                if '"x":' not in plain:
                    memory.import_(io.BytesIO(head.encode()))
                    if rng.random() < 0.8:  # what was imported goes again, so that the store stays small
                        memory.forget(session=f"s{seed}", before=1.0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
