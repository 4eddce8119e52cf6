"""What ``tools/compact_golden.py`` keeps of the full set: arrays, parts of them, precision and meaning."""

from __future__ import annotations

from dataclasses import dataclass

# First index and step of an axis.
Axis = tuple[int, int]
ALL: Axis = (0, 1)


@dataclass(frozen=True)
class Kept:
    """An array to keep.

    Attributes:
        meaning: What it holds, for the README.
        atol: The tightest tolerance of a test that reads it; what is stored differs by at most 1/128 of it. 0: exact.
        every: First index and step of the leading axes; axes not named are kept whole.
        drawn: Seed of PyTorch's generator in whose stream the array may stand; where it does, only the place is stored.
        pixels: Normalised images that go back to 8-bit pixels exactly.
    """

    meaning: str
    atol: float = 0
    every: tuple[Axis, ...] = ()
    drawn: int | None = None
    pixels: bool = False


# Of 225 patches or 226 tokens each 8th: all columns of the 15 x 15 grid occur, and with tokens the class token.
TOKENS: Axis = (0, 8)
# Of 240 x 240 pixels each third, with the last row and the first column.
ROWS: Axis = (2, 3)
COLUMNS: Axis = (0, 3)

CLIPAD_ANOVL: dict[str, dict[str, Kept]] = {
    "tiny_clip.json": {},
    "tiny_clip.safetensors": {
        "token_embedding.rows": Kept("token ids that the recorded prompts use"),
        "token_embedding.values": Kept("their rows of the token table; the other rows are zero when loaded"),
        "*": Kept("weights of the tiny CLIP under open_clip's names", drawn=0),
    },
    "inputs.npz": {
        "images": Kept("input tensors: 8-bit pixels / 255, minus CLIP's mean, by its standard deviation", pixels=True),
        "masks": Kept("made-up masks for training and metrics"),
    },
    "openclip330_check.npz": {
        "image_features": Kept("`encode_image(images)` of open_clip 3.3.0, not normalised", 1e-4),
        "text_tokens": Kept("two sentences as token ids"),
        "text_features": Kept("their `encode_text`, not normalised", 1e-4),
    },
    "clipad_text.npz": {
        **{
            f"tokens_{side}": Kept("token ids of the prompts (class, prompt, position)")
            for side in ("normal", "abnormal")
        },
        **{
            f"emb_raw_{side}": Kept("their text embeddings, not normalised (class, prompt, D)", 5e-5)
            for side in ("normal", "abnormal")
        },
        **{
            f"feat_{choice}": Kept("text vectors (class, D, [normal, abnormal]) by this representative", 5e-6)
            for choice in ("mean", "pca", "kde", "mean_shift", "dbscan_mvtec", "dbscan_visa")
        },
        **{
            f"labels_{choice}_{side}": Kept("cluster of each prompt, -1: noise")
            for choice in ("mean_shift", "dbscan_mvtec", "dbscan_visa")
            for side in ("normal", "abnormal")
        },
    },
    "clipad_features.npz": {
        "surgery_raw": Kept(
            "F_k: projected staged value-value tokens (stage, image, token, D)", 1e-4, (ALL, ALL, TOKENS)
        ),
        "ori_raw_img01": Kept("o_3k: ordinary tokens with the next block's attention", 1e-4, (ALL, ALL, TOKENS)),
        "ori_raw_patchmean": Kept("their mean over the patches (stage, image, width)", 1e-3),
        "ori_raw_cls": Kept("their class tokens", 1e-3),
        "ori_unaliased_first9": Kept("h_3k: ordinary tokens at the block's output, tokens 0 to 8", 1e-3),
        "vv_path_width_first9": Kept("S_k: staged value-value tokens in the tower's width, tokens 0 to 8", 1e-3),
    },
    "clipad_sdp.npz": {
        **{
            f"sdp_{text}_{name}": kept
            for text in ("mean", "dbscan")
            for name, kept in {
                "similarity": Kept("similarity summed over the stages (image, token, [normal, abnormal])", 5e-6),
                "map_smooth": Kept("map after Gaussian smoothing, sigma 8", 5e-6, (ALL, ROWS, COLUMNS)),
                "map_raw_minmax": Kept("smallest and largest value of each map before smoothing"),
                "score_text": Kept("score of the class token and the text"),
                "score_mapmax": Kept("largest value of each smoothed map"),
            }.items()
        },
        "sdp_mean_map_raw_img01": Kept("map before smoothing, images 0 and 1", 5e-6, (ALL, ROWS, COLUMNS)),
        **{
            f"sameclass_score_{name}": Kept(
                "the four images as one category `bottle`: score by text, by map, final sum"
            )
            for name in ("text", "mapmax", "final")
        },
        "sameclass_metrics": Kept("metrics that the code printed for it, percent with one decimal"),
    },
    "clipad_sdpplus.npz": {
        **{f"linear_fc.{n}.{part}": Kept("initial linear layers") for n in range(4) for part in ("weight", "bias")},
        **{
            f"trained3_fc.{n}.{part}": Kept("linear layers after three training steps", 2e-6)
            for n in range(4)
            for part in ("weight", "bias")
        },
        "linear_out": Kept("output of the initial layers (stage, image, patch, D)", 5e-4, (ALL, ALL, TOKENS)),
        "ft_stage_maps_stride5": Kept("abnormal probability of each stage, pixels `[2::5, 1::5]`", 1e-4),
        "ft_sum_img0": Kept("their sum for image 0", 1e-4, (ROWS, COLUMNS)),
        "ft_stage_minmaxmean": Kept("smallest, largest and mean value of the whole stage maps"),
        "combined_raw_stride5": Kept("sum of both maps before smoothing, pixels `[2::5, 1::5]`", 1e-4),
        "map_smooth8": Kept("final map, sigma 8", 1e-4, (ALL, ROWS, COLUMNS)),
        "map_smooth2": Kept("final map, sigma 2, images 0 and 1", 1e-4, (ALL, ROWS, COLUMNS)),
        "score_mapmax_smooth8": Kept("largest value of the final map"),
        "score_mapmax_smooth2": Kept("largest value of the final map"),
        "score_text": Kept("score of the class token and the text"),
        "train_focal": Kept("focal loss (step, stage)"),
        "train_dice": Kept("Dice loss (step, stage)"),
        "train_total": Kept("loss of each step"),
        "train_b1_focal": Kept("focal loss of image 2 alone, first step"),
        "train_b1_dice": Kept("Dice loss of image 2 alone, first step"),
        "loss_syn_prob": Kept("made-up softmax maps", 1e-5),
        "loss_syn_mask": Kept("made-up masks"),
        "loss_syn_focal": Kept("focal loss of that pair"),
        "loss_syn_dice": Kept("Dice loss of that pair"),
    },
    "anovl_text.npz": {
        "feat_mean": Kept("text vectors (class, D, [normal, abnormal])", 5e-6),
        "feat_list": Kept("text embeddings of unit length (class, prompt, D, state)", 5e-6, (ALL, (0, 5))),
        "emb_raw_norms": Kept("lengths of the raw embeddings", 1e-4),
        **{f"tokens_{side}": Kept("token ids of the prompts") for side in ("normal", "abnormal")},
    },
    "anovl_features.npz": {
        "tokens6_raw": Kept("V_12: value-value tokens of all blocks, class row from h_12", 1e-3, (ALL, TOKENS)),
        "tokens7_raw_img01": Kept("h_12: ordinary tokens, images 0 and 1", 1e-3, (ALL, TOKENS)),
        "tokens135_raw_img0": Kept("o_3, o_6, o_9 of image 0", 1e-3, (ALL, TOKENS)),
        "tokens6_proj": Kept("projected patches of V_12", 1e-4, (ALL, TOKENS)),
        "tokens1357_proj_img0": Kept("projected patches of o_3, o_6, o_9, h_12 of image 0", 5e-4, (ALL, TOKENS)),
        "pooled_cls": Kept("projected class tokens", 1e-4),
        "unaliased_vv_img0_first9": Kept("V_3, V_6, V_9, V_12 at the block's output, image 0, tokens 0 to 8", 1e-3),
        "unaliased_ori_img0_first9": Kept("h_3, h_6, h_9, h_12, the same", 1e-3),
    },
    "anovl_maps.npz": {
        "grid_noadapter_pooled": Kept("pooled 15 x 15 probabilities", 3e-6),
        "map_noadapter": Kept("map", 3e-6, (ALL, ROWS, COLUMNS)),
        "map_adapter": Kept("map after adaptation", 1e-5, (ALL, ROWS, COLUMNS)),
    },
    "anovl_aug.npz": {
        "aug_stride8": Kept("pixels `[3::8, 5::8]` of the 22 views", 2e-6, (ALL, ALL, ALL, (0, 2), (1, 2))),
        "aug_full_img0_k1_k9": Kept("views 1 and 9 of image 0", 2e-6, (ALL, ALL, ROWS, COLUMNS)),
        "aug_mean_std": Kept("mean and standard deviation of each view's channels"),
        "aug_cls_raw": Kept("class token of each view, not normalised", 1e-3),
        "aug_probs": Kept("probabilities of each view"),
        "image_score": Kept("image scores"),
    },
    "anovl_adapter.npz": {
        **{
            f"{run}init_{part}_{image}": Kept("linear layer before adaptation", drawn=111)
            for run, images in (("", 4), ("carry_", 2))
            for image in range(images)
            for part in ("weight", "bias")
        },
        **{
            f"{name}_{image}": Kept("linear layer after five steps", 2e-4, every)
            for name, every in (("final_weight", ((0, 4),)), ("final_bias", ()))
            for image in (0, 1)
        },
        "carry_final_weight_1": Kept("linear layer after five steps, second image", 2e-4, ((0, 4),)),
        "carry_final_bias_1": Kept("its bias", 2e-4),
        "pred_epoch0_img0": Kept("first step's predictions without and with noise, image 0", 3e-6),
        **{
            f"{run}{name}": kept
            for run in ("", "carry_")
            for name, kept in {
                "noise": Kept("noise of the five steps (image, step, 15, 15, D)", drawn=111),
                "loss": Kept("losses (image, step)"),
                "adapted_tokens": Kept("adapted patches (image, 15, 15, D)", 1e-2),
                "grid_pooled": Kept("pooled 15 x 15 probabilities", 1e-5),
                "final_bias_stats": Kept("sums and absolute sums of the final weight and bias"),
                "delta_weight_absmean": Kept("mean change of the weight"),
            }.items()
        },
    },
    "anovl_visa.npz": {
        "init_weight": Kept("linear layer before adaptation", drawn=42),
        "init_bias": Kept("its bias", drawn=42),
        "noise": Kept("noise of the three steps (step, tile, 15, 15, D)", drawn=42),
        "final_weight": Kept("linear layer after three steps", 2e-4),
        "final_bias": Kept("its bias", 2e-4),
        "loss": Kept("losses"),
        "tokens6_proj": Kept("projected patches of both tiles", 5e-4, (ALL, TOKENS)),
        "tile_cls_raw": Kept("class tokens of both tiles", 5e-4),
        "adapted_tokens": Kept("adapted patches", 1e-3),
        **{
            f"{run}_{name}": kept
            for run in ("noadapter", "adapter")
            for name, kept in {
                "image_score": Kept("image score"),
                "grid_pooled_tiles": Kept("pooled 15 x 15 probabilities of both tiles", 3e-6),
                "map_tiles_up_stride5": Kept("enlarged maps of both tiles, pixels `[2::5, 1::5]`", 3e-6),
            }.items()
        },
        "map_noadapter": Kept("map of the wide image, 240 x 288", 3e-6, (ROWS, COLUMNS)),
        "map_adapter": Kept("the same after adaptation", 3e-6, (ROWS, COLUMNS)),
    },
}

WINCLIP_MUSC_METRICS: dict[str, dict[str, Kept]] = {
    "tiny_clip.json": {},
    "tiny_clip.safetensors": {
        "token_embedding.rows": Kept("token ids that the recorded prompts use"),
        "token_embedding.values": Kept("their rows of the token table; the other rows are zero when loaded"),
        "*": Kept("weights of the tiny CLIP under open_clip's names", drawn=3007),
    },
    "inputs.npz": {
        "images": Kept("input tensors as above; WinCLIP's test images, MuSc's first four", pixels=True),
        "images_extra": Kept("MuSc's other four; the first is WinCLIP+'s reference", pixels=True),
    },
    "winclip.npz": {
        "zq_img_emb": Kept("projected class tokens, not normalised", 1e-4),
        **{f"zq_win{side}_emb": Kept("window embeddings (image, window, D)", 1e-4, (ALL, (0, 2))) for side in (2, 3)},
        "an_openclip3_bug_win2_emb_img0": Kept("anomalib's collapsed windows under open_clip >= 2.26.1", 1e-4),
        **{f"{code}_text_raw_mean": Kept("mean text embeddings (class, state, D)", 1e-5) for code in ("zq", "an")},
        **{f"{code}_text_normed": Kept("text vectors (class, state, D)", 1e-5) for code in ("ma", "cy")},
        **{f"{code}_n_prompts": Kept("number of prompts of each state") for code in ("zq", "an", "ma", "cy")},
        "an_tokens_bottle_normal": Kept("token ids of the normal prompts of `bottle`"),
        "an_prompt_feats_bottle_normal": Kept("their embeddings", 1e-4),
        **{
            f"{code}_mask{side}{base}": Kept("patches of each window (patch, window)")
            for side in (2, 3)
            for code, base in (("an", ""), ("zq", "_1based"), ("ma", "_1based"))
        },
        **{
            f"{code}_{name}": kept
            for code in ("zq", "an")
            for name, kept in {
                "win2_score": Kept("window scores (class, image, window)", 1e-5),
                "win3_score": Kept("window scores (class, image, window)", 1e-5),
                "harm2": Kept("harmonic means (class, image, 15, 15)", 1e-5),
                "harm3": Kept("harmonic means (class, image, 15, 15)", 1e-5),
                "map15": Kept("map (class, image, 15, 15)", 1e-5),
                "fs_vis2": Kept("distance of each window to the reference's", 1e-5),
                "fs_vis3": Kept("distance of each window to the reference's", 1e-5),
                "fs_visP": Kept("distance of each patch to the reference's", 1e-5),
                "fs_total15": Kept("few-shot map and zero-shot map together (class, image, 15, 15)", 1e-5),
            }.items()
        },
        **{f"{code}_fs_map15": Kept("few-shot map (image, 15, 15)", 1e-5) for code in ("zq", "an", "ma", "cy")},
        **{f"{code}_img_score": Kept("image scores (class, image)") for code in ("zq", "an", "ma", "cy")},
        **{f"{code}_fs_img_score": Kept("few-shot image scores (class, image)") for code in ("zq", "an", "ma", "cy")},
        "ma_fs_max": Kept("largest value of the few-shot map"),
        "zq_patch_tok": Kept("patch tokens before `ln_post`", 1e-4, (ALL, TOKENS)),
        "an_patch_emb": Kept("patch tokens after `ln_post`", 1e-4, (ALL, TOKENS)),
        "cy_map15": Kept("map (class, image, 15, 15)", 1e-5),
        "zq_map240_diag": Kept("map in pixels, image i as class i", 1e-5, (ALL, ROWS, COLUMNS)),
        "an_fs_full_map_bottle": Kept("few-shot map in pixels, image 0 as `bottle`", 1e-5, (ALL, ROWS, COLUMNS)),
        "cy_map240_img0": Kept("map in pixels, image 0 as `bottle`", 1e-5, (ROWS, COLUMNS)),
    },
    "musc.npz": {
        "layers": Kept("blocks, counted from 1"),
        "tokens": Kept("block outputs before `ln_post` (layer, image, token, width)", 1e-4, (ALL, ALL, TOKENS)),
        "cls": Kept("projected class tokens of unit length", 1e-5),
        "W": Kept("their products", 1e-5),
        **{
            f"{name}_r{side}{rest}": kept
            for side in (1, 3, 5)
            for name, rest, kept in (
                ("lnamd", "_prenorm_img0", Kept("neighbourhood means, image 0 (patch, layer, width)", 1e-5, (TOKENS,))),
                ("lnamd", "_normed_img01", Kept("the same of unit length, images 0 and 1", 1e-5, (ALL, TOKENS))),
                ("msm", "", Kept("mutual scores (layer, image, patch)", 1e-5)),
            )
        },
        "msm_slow_r3_l1": Kept("mutual scores by the code's second routine, r = 3, second layer", 1e-5),
        "mindist_r3_l1_f64": Kept("distance to each other image (image, patch, other), r = 3, second layer", 1e-5),
        **{
            f"msm_r5_l3_{name}": Kept("mutual scores with another interval, r = 5, last layer", 1e-5)
            for name in ("0_05", "01_06", "1_3")
        },
        "msm_mean_layers": Kept("mean over the layers (r, image, patch)", 1e-5),
        "map15": Kept("map (image, 15, 15)", 1e-5),
        "map240_img0": Kept("map in pixels, image 0", 1e-5, (ROWS, COLUMNS)),
        "img_score_raw": Kept("image scores before RsCIN"),
        **{f"rscin_k{name}": Kept("image scores after RsCIN") for name in ("1_2_3", "1_4_5", "2")},
    },
    "metrics.json": {},
    "metrics.npz": {
        f"{case}_{name}": Kept(meaning)
        for case in ("plain", "ties", "whole", "noanom", "skew")
        for name, meaning in (
            ("masks", "true masks"),
            ("maps", "scores of the pixels"),
            ("img_labels", "true labels"),
            ("img_scores", "scores of the images"),
        )
    },
}

# The files of each set.
SETS = {"clipad_anovl": CLIPAD_ANOVL, "winclip_musc_metrics": WINCLIP_MUSC_METRICS}
