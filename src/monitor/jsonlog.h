/* Writer of docker's json-file log.
 *
 * One JSON object a line: {"log":"text\n","stream":"stdout","time":"…Z"}. A line
 * of output longer than JSONLOG_LINE_MAX is written in pieces, all but the last
 * without the newline; so is what an instance left unfinished at its end. Bytes
 * that are not UTF-8 become U+FFFD (as docker does); a piece is never cut inside
 * a character.
 *
 * Each batch is one write(2); after a failed or short one the file is cut back to
 * whole lines and what did not fit is lost: an instance goes on when the disk is
 * full. With max_bytes the file is rotated: NAME.(n-1) … NAME.1, NAME.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define JSONLOG_LINE_MAX 16384

enum jsonlog_stream { JSONLOG_OUT, JSONLOG_ERR, JSONLOG_STREAMS };

struct jsonlog {
        char *path;
        int fd;
        uint64_t size_bytes;                 /* of the current file */
        uint64_t max_bytes;                  /* 0: no rotation */
        unsigned max_files;                  /* at least 1, the current one included */
        uint64_t lost_bytes;                 /* formatted but not written */
        struct buf pending[JSONLOG_STREAMS]; /* the unfinished line of each stream */
        struct buf batch;
};

/* Opens for appending; creates it with mode 0640. */
int jsonlog_open(struct jsonlog *log, const char *path, uint64_t max_bytes, unsigned max_files,
                 struct err *err);
void jsonlog_write(struct jsonlog *log, enum jsonlog_stream stream, const void *data, size_t size,
                   int64_t now_ns);
/* Writes unfinished lines out and closes. A zeroed log is allowed. */
void jsonlog_close(struct jsonlog *log, int64_t now_ns);

/* Appends one formatted record. Exposed for tests. */
void jsonlog_format(struct buf *out, const char *text, size_t size, enum jsonlog_stream stream,
                    int64_t time_ns);
