from pathlib import Path

from tokenizers import Tokenizer

from tests.support.tiny_checkpoint import make_tiny_checkpoint


def test_tiny_checkpoint_is_reproducible_and_fills_its_vocabulary(tmp_path: Path) -> None:
    first = make_tiny_checkpoint(tmp_path / "a", seed=3, vocab=600)
    again = make_tiny_checkpoint(tmp_path / "b", seed=3, vocab=600)
    other = make_tiny_checkpoint(tmp_path / "c", seed=4, vocab=600)

    assert [p.read_bytes() for p in sorted(first.iterdir())] == [
        p.read_bytes() for p in sorted(again.iterdir())
    ]
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    assert Tokenizer.from_file(str(first / "tokenizer.json")).get_vocab_size() == 600
