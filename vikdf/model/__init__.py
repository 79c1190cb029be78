"""The model, one file per part of the paper's figures: encoders (CLIP), iqformer, distill (TIM TAMIM IAMTM), integrate
(BVIF: IACI IAKR), backbone (any causal LM), vikdf (puts them together), respond (dialogue to response), checkpoint."""
