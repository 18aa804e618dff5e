"""Block strings: what the published notation means, and one sentence for each string that makes no model."""

import pytest
from reference_cases import PUBLISHED_MODELS

from vdvae_lr.errors import InputError
from vdvae_lr.model.vdvae.layout import DecoderStage, EncoderStage, parse_decoder, parse_encoder, parse_widths

ENCODER = parse_encoder("8x1,8d2,4x1,4d4,1x1", 8)  # features at 8, 4 and 1


def assert_refused(caught: pytest.ExceptionInfo[InputError], setting: str, *named: str) -> None:
    """One sentence that begins with the setting and names what is wrong."""
    message = str(caught.value)
    assert message.startswith(f"{setting}: ")
    assert message.endswith(".")
    assert all(word in message for word in named), message


def test_encoder_stages() -> None:
    """`RxN` repeats, `RdK` is a block and then pooling, a lone resolution is one block, spaces do not matter."""
    assert parse_encoder("8x2, 8d2,4 , 4d4,1x1", 8) == (
        EncoderStage(8),
        EncoderStage(8),
        EncoderStage(8, pool=2),
        EncoderStage(4),
        EncoderStage(4, pool=4),
        EncoderStage(1),
    )


def test_pooling_gives_the_output_resolution() -> None:
    assert [stage.output_resolution for stage in ENCODER] == [8, 4, 4, 1, 1]


def test_decoder_stages() -> None:
    """`RmS` is one block, which first adds the upsampled state of S."""
    assert parse_decoder("1x2,4m1,4,8m4,8x2", 8, ENCODER) == (
        DecoderStage(1),
        DecoderStage(1),
        DecoderStage(4, upsample_from=1),
        DecoderStage(4),
        DecoderStage(8, upsample_from=4),
        DecoderStage(8),
        DecoderStage(8),
    )


def test_upsampling_may_skip_a_resolution() -> None:
    assert parse_decoder("1x1,8m1", 8, ENCODER) == (DecoderStage(1), DecoderStage(8, upsample_from=1))


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_published_models_have_as_many_stages_as_published_blocks(name: str) -> None:
    settings, shapes = PUBLISHED_MODELS[name]["hps"], PUBLISHED_MODELS[name]["shapes"]
    encoder = parse_encoder(settings["enc_blocks"], settings["image_size"])
    decoder = parse_decoder(settings["dec_blocks"], settings["image_size"], encoder)
    assert len(decoder) == sum(key.endswith("z_proj.bias") for key in shapes)
    assert len(encoder) == sum(key.startswith("encoder.enc_blocks") and key.endswith("c1.bias") for key in shapes)


@pytest.mark.parametrize("piece", ["", "8y2", "8x0", "0x8", "x2", "8x", "8x1.5", "-8x2", "8m4", "08x1", "8xx2"])
def test_encoder_strings_with_a_broken_piece_are_refused(piece: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_encoder(f"8x1,{piece},8d2", 8)
    assert_refused(caught, "enc_blocks", f"'{piece}'", "32x11 or 32d2")


@pytest.mark.parametrize("piece", ["", "4d2", "4m", "4m0", "4x0", "one", "4 x 1"])
def test_decoder_strings_with_a_broken_piece_are_refused(piece: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_decoder(f"1x1,{piece}", 8, ENCODER)
    assert_refused(caught, "dec_blocks", f"'{piece}'", "32x11 or 32m16")


@pytest.mark.parametrize(
    ("text", "image_size", "named"),
    [
        pytest.param("8x1,8d2,4x1", 16, ("resolution 8", "image_size is 16"), id="another image size"),
        pytest.param("8x1,4x1", 8, ("resolution 4", "lead to 8"), id="pooling forgotten"),
        pytest.param("8x1,8d2,8x1", 8, ("resolution 8", "lead to 4"), id="back up"),
        pytest.param("8x1,8d3,2x1", 8, ("'8d3'", "divisor of 8"), id="pooling that does not divide"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(text: str, image_size: int, named: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        parse_encoder(text, image_size)
    assert_refused(caught, "enc_blocks", *named)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("2x1,8m2", ("resolution 2", "[1, 4, 8]"), id="no feature at that resolution"),
        pytest.param("1x1,8m4,4x1,8x1", ("'8m4'",), id="upsampling from a later state"),
        pytest.param("8m4", ("'8m4'",), id="upsampling from nothing"),
        pytest.param("8x1,4m8,8x1", ("'4m8'",), id="upsampling downwards"),
        pytest.param("8x1,8m8", ("'8m8'",), id="upsampling from itself"),
        pytest.param("1x1,4m1", ("resolution 4", "image_size is 8"), id="stops below the image"),
    ],
)
def test_decoders_that_do_not_fit_are_refused(text: str, named: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        parse_decoder(text, 8, ENCODER)
    assert_refused(caught, "dec_blocks", *named)


def test_upsampling_by_no_whole_factor_is_refused() -> None:
    encoder = parse_encoder("12x1,12d2,6x1", 12) + parse_encoder("12d3,4x1", 12)  # features at 12, 6 and 4
    with pytest.raises(InputError) as caught:
        parse_decoder("4x1,6m4,12m6", 12, encoder)
    assert_refused(caught, "dec_blocks", "'6m4'", "divisor of 6")


def test_widths_default_to_width() -> None:
    assert parse_widths("", 12, ENCODER) == {8: 12, 4: 12, 1: 12}


def test_custom_widths_replace_it_where_they_are_given() -> None:
    assert parse_widths(" 4:16, 1:24,", 12, ENCODER) == {8: 12, 4: 16, 1: 24}


def test_a_width_for_a_resolution_that_the_encoder_lacks_is_refused() -> None:
    """It would do nothing: most likely a typing error."""
    with pytest.raises(InputError) as caught:
        parse_widths("40:16,1:16", 12, ENCODER)
    assert_refused(caught, "custom_width_str", "resolution 40", "[1, 4, 8]")


@pytest.mark.parametrize("text", ["4", "4:", ":16", "4:0", "4=16", "4:16:2", "four:16", "4:-16", "4:1.5"])
def test_broken_width_strings_are_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_widths(text, 12, ENCODER)
    assert_refused(caught, "custom_width_str", f"'{text}'")


def test_another_width_at_the_images_resolution_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        parse_widths("8:16,4:16,1:16", 12, ENCODER)
    assert_refused(caught, "custom_width_str", "resolution 8", "width 12", "--width to 16")


@pytest.mark.parametrize("text", ["4:8", "4:16,1:15", "1:11"])
def test_widths_that_narrow_downwards_are_refused(text: str) -> None:
    """Features are zero-padded on their way down: there is no way to lose channels."""
    with pytest.raises(InputError) as caught:
        parse_widths(text, 12, ENCODER)
    assert_refused(caught, "custom_width_str", "grow towards lower resolutions")
