#include "discquant/method.h"

const struct method method_rtn = {.name = "rtn"};

// One order in both.
const struct method *const methods[] = {&method_rtn,      &method_discquant, &method_gptq,
                                        &method_adaround, &method_signround, &method_qat};
const char method_names[] = "rtn|discquant|gptq|adaround|signround|qat";
