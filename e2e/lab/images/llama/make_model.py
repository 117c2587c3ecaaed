"""Writes a language model of random weights as GGUF: two layers, 0.4 M parameters. Its words mean nothing."""

import sys

import gguf
import numpy

LAYERS, WIDTH, INNER, HEADS, CONTEXT = 2, 64, 192, 4, 2048

# SentencePiece as llama.cpp wants it: three control tokens, one token for each byte, and some words.
WORDS = [f"\u2581{a}{b}" for a in "bdfgklmnprstvz" for b in "aeiou"]
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *WORDS]
UNKNOWN, CONTROL, BYTE, NORMAL = 2, 3, 6, 1
TYPES = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (1 + len(WORDS))]


def main(path: str) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types(TYPES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    random = numpy.random.default_rng(0)

    def weights(name: str, *shape: int) -> None:
        values = random.standard_normal(shape) * 0.05 if len(shape) > 1 else numpy.ones(shape)
        writer.add_tensor(name, values.astype(numpy.float32))

    weights("token_embd.weight", len(TOKENS), WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights(f"{block}.attn_norm.weight", WIDTH)
        for part in ("q", "k", "v", "output"):
            weights(f"{block}.attn_{part}.weight", WIDTH, WIDTH)
        weights(f"{block}.ffn_norm.weight", WIDTH)
        weights(f"{block}.ffn_gate.weight", INNER, WIDTH)
        weights(f"{block}.ffn_up.weight", INNER, WIDTH)
        weights(f"{block}.ffn_down.weight", WIDTH, INNER)
    weights("output_norm.weight", WIDTH)
    weights("output.weight", len(TOKENS), WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])
