/* One line of a json-file log. Pure; fuzzed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "engine/logs.h"

#define LOG_RECORD_MAX (128u << 10) /* a record of 16 KiB that is all escapes, and some more */

struct log_record {
        int stream; /* 1 stdout, 2 stderr */
        int64_t time_ns;
        struct buf text; /* the caller's, appended to */
};

/* Parses {"log":"…","stream":"…","time":"…"}; other keys are passed over. The text goes to
 * the end of ret->text. -EBADMSG for anything else. */
int log_record_parse(const char *line, size_t size, struct log_record *ret);

/* Formats for a client: stream header where `framed`, time where wanted. */
void log_record_format(const struct log_record *record, bool framed, bool timestamps,
                       struct buf *out);
