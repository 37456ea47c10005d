#include "discquant/method.h"

const struct method method_rtn = {.name = "rtn"};

// One order in both.
const struct method *const methods[] = {&method_rtn, &method_discquant};
const char method_names[] = "rtn|discquant";
