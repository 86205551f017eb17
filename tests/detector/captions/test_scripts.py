"""Which tokens are asked, answered and learned."""

from transformers import PreTrainedTokenizerFast

from detector.captions.packing import IGNORED, Tail, pack
from detector.captions.scripts import REGION_PROMPT, Piece, Script
from tests.detector.captions.example_llm import heads, tokenizer


def spelled(script: Script, text: str, wanted: bool) -> list[str]:
    """Tokens of a region's sequence that are (not) learned, with the image as one token."""
    whole = script.before + Piece((0,), (False,)) + script.after + script.answer(text)
    return [script.tokenizer.decode(one) for one, learn in zip(whole.ids, whole.wanted, strict=True) if learn == wanted]


def test_a_sequence_is_system_user_with_image_and_assistant() -> None:
    script = Script(tokenizer(), REGION_PROMPT, "upstream")
    assert tokenizer().decode(script.before.ids) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    )
    assert tokenizer().decode(script.after.ids) == "\nDescribe the region in a phrase.<|im_end|>\n"
    assert tokenizer().decode(script.answer("Red car.").ids) == "<|im_start|>assistant\nRed car.<|im_end|>\n"


def test_upstreams_labels_are_the_frame_and_the_whole_answer() -> None:
    script = Script(tokenizer(), REGION_PROMPT, "upstream")
    learned = spelled(script, "Red car.", True)
    frame = ["<|im_start|>", "\n", "<|im_end|>", "\n", "<|im_start|>", "\n", "\n", "<|im_end|>", "\n"]
    assert learned[:9] == frame  # nine of the frame before the answer
    assert "".join(learned[9:]) == "<|im_start|>assistant\nRed car.<|im_end|>\n"
    assert all(token not in {"<|im_start|>", "<|im_end|>", "\n"} for token in spelled(script, "Red car.", False)[:-1])


def test_the_strict_labels_are_the_answer_and_its_end() -> None:
    script = Script(tokenizer(), REGION_PROMPT, "answer")
    assert "".join(spelled(script, "Red car.", True)) == "Red car.<|im_end|>"


def test_a_model_without_markers_gets_lines() -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<|endoftext|>")
    plain = without_markers(plain)
    script = Script(plain, REGION_PROMPT, "upstream")
    assert script.before == Piece()
    assert plain.decode(script.after.ids) == "\nDescribe the region in a phrase.\n"
    assert "".join(spelled(script, "Red car.", True)) == "Red car.<|endoftext|>"


def without_markers(plain: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same vocabulary, without the markers of a chat as tokens of their own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [], trainers.BpeTrainer(special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")


def test_packing_shares_the_beginning_and_counts_it_for_every_sequence() -> None:
    before = Piece((5, 6), (True, True))
    tails = [Tail(1, Piece((7, 8), (True, False))), Tail(2, Piece((9,), (True,)))]
    rows = pack(before, tails, 100)
    assert rows.ids_RL.tolist() == [[5, 6, 0, 7, 8, 0, 0, 9]]
    assert rows.positions_RL.tolist() == [[0, 1, 2, 3, 4, 2, 3, 4]]
    assert rows.segments_RL.tolist() == [[0, 0, 1, 1, 1, 2, 2, 2]]
    assert rows.targets_RL.tolist() == [[6, IGNORED, 7, IGNORED, IGNORED, IGNORED, 9, IGNORED]]
    assert rows.weights_RL.tolist() == [[2, 2, 1, 1, 1, 1, 1, 1]]
    assert rows.images_N2.tolist() == [[0, 2], [0, 5], [0, 6]]
    mask = rows.mask()
    assert mask is not None
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 0, 1, 1, 1],
    ]


def test_sequences_are_cut_to_their_limit_with_the_image_counted() -> None:
    made = heads(region_tokens=60)
    rows = made.region_rows(["A red car stands at the stop near a tree. " * 5])
    assert rows.ids_RL.shape == (1, 60)
