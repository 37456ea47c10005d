#ifndef DQ_DATA_VERSION_H
#define DQ_DATA_VERSION_H

// "0.1.0" or, built from a git tree, "0.1.0 (1a2b3c4)".
const char *version_text(void);

#endif
