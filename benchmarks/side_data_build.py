"""`python -m benchmarks.side_data_build CORPUS TOKENIZER OUT`: tokenizing a corpus as one would without Phalanx."""

from __future__ import annotations

import json
import sys
from itertools import islice

import numpy as np
from tokenizers import Tokenizer

AT_ONCE = 16


def main(corpus: str, tokenizer_file: str, out: str) -> None:
    """JSON lines with a `text` to uint16 tokens, one document after the other."""
    tokenizer = Tokenizer.from_file(tokenizer_file)
    tokenizer.encode_special_tokens = True
    with open(corpus, encoding="utf-8") as lines, open(out, "wb") as file:
        while texts := [json.loads(line)["text"] for line in islice(lines, AT_ONCE)]:
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            file.writelines(np.array(encoding.ids, np.uint16).tobytes() for encoding in encodings)


if __name__ == "__main__":
    main(*sys.argv[1:])
