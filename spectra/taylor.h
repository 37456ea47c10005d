// Does the first order say what rounding does to losses? The paper's Figure 2: `discquant-spectra taylor`.
//
//     f = cross entropy of the next token given those before it in its window, -log p, nats; one number per token
//     delta = f(w_hat) - f(w),   first order = <gradient of f at w, w_hat - w>, by one forward-mode pass for all tokens
//
//   OUT/delta_NAME.npy, first_order_NAME.npy   [windows, seq_len - 1], for every rounding NAME ("rtn" and those of --quantized)
//   OUT/loss.npy             f(w), the same shape
//   OUT/order_NAME.npy       [n_t, 5] t, rms of the plain, the even and the central remainder (spectra/taylor_order.h), whether it is
//                            a point of the order's fit
//   OUT/metrics.jsonl        a line per rounding and t
//   OUT/result.json          tokens, windows; then, each with _NAME behind it:
//      pearson, pearson_ci_low, pearson_ci_high   of delta with the first order, tokens as pairs, windows as clusters; 95 %
//      slope, slope_se, slope_tls, slope_tls_se   of delta on the first order: least squares, total least squares
//      sign_agreement, sign_agreement_se          share of tokens
//      remainder_share, remainder_share_se        mean (delta - first order)^2 / mean delta^2
//      delta_mean, delta_rms, first_order_mean, first_order_rms   nats
//      pearson_windows, _ci_low, _ci_high         of window means
//      beta, beta_ci_low, beta_ci_high, beta_without_largest      of the windows' gradients in this direction: spectra/beta.h
//      order, order_se, order_even, order_even_se, order_points, order_t_least, order_t_most, order_floor
//      central_error            least rms of the central difference less the first order, over the latter's rms
//      distance, distance_share |w_hat - w|, and over |w| of the weights that moved; cosine of w and w_hat there
#ifndef DQ_SPECTRA_TAYLOR_H
#define DQ_SPECTRA_TAYLOR_H

#include "data/program.h"

extern const struct command taylor_command;

#endif
