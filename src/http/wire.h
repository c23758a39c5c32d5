/* HTTP/1.1 on the wire: heads, chunks and percent-encoding (RFC 9110, 9112).
 *
 * Pure functions on bytes, for both ends; no I/O. Strict where leniency lets two
 * readers disagree about where a message ends: lines end in CRLF, no blanks before
 * the colon, no folded lines, no control characters, one Content-Length, never
 * together with Transfer-Encoding, whose only accepted value is "chunked".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

#define WIRE_FIELDS_LIMIT 100 /* header fields of one head */

/* How the end of a body is found. */
enum wire_framing {
        WIRE_NONE,    /* there is no body */
        WIRE_LENGTH,  /* Content-Length */
        WIRE_CHUNKED, /* Transfer-Encoding: chunked */
        WIRE_CLOSE,   /* replies only: until the connection ends */
};

struct wire_field {
        const char *name, *value; /* NUL-terminated in the parsed text */
};

struct wire_head {
        /* Requests. */
        const char *method, *target;
        /* Replies. */
        int status;

        bool http10;
        bool close;           /* the sender closes after this message */
        bool upgrade;         /* "Connection: upgrade" and an Upgrade field */
        bool expect_continue; /* "Expect: 100-continue" */
        enum wire_framing framing;
        uint64_t content_length; /* WIRE_LENGTH */

        struct wire_field fields[WIRE_FIELDS_LIMIT];
        size_t length;
};

/* Size of the head at the start of the bytes, the empty line included; 0 where it
 * is not complete yet. `scanned` is kept by the caller (0 at first) so that a head
 * that arrives in drops is not searched again and again. */
size_t wire_head_size(const char *bytes, size_t size, size_t *scanned);

/* Parse a whole head in place: the text is cut up by NULs and pointed into.
 * -EBADMSG where it is malformed, -E2BIG where it has too many fields. For replies
 * `to_head` says that the request was HEAD. */
int wire_parse_request(char *text, size_t size, struct wire_head *ret);
int wire_parse_reply(char *text, size_t size, bool to_head, struct wire_head *ret);

/* First field of a name, in any case; NULL where absent. */
const char *wire_field(const struct wire_head *head, const char *name);
/* Whether a comma-separated list holds the token, in any case. */
bool wire_has_token(const char *list, const char *token);
/* Token characters only, at least one. */
bool wire_is_token(const char *text);
/* No control characters but tab: fit for a field value. */
bool wire_is_value(const char *text);

/* Decoder of a chunked body; {0} at first. */
struct wire_chunks {
        unsigned state;
        unsigned digits;         /* of the size being read */
        unsigned overhead_bytes; /* of the current extension or of the trailers */
        uint64_t remaining;      /* data bytes left in the chunk */
        bool done;
};

/* Takes in some of the bytes and returns how many, -EBADMSG where they are no chunks.
 * *ret_data, *ret_size is the run of body bytes among them, if any. Call again with
 * the rest until nothing is left or `done`. */
ssize_t wire_chunks_feed(struct wire_chunks *chunks, const char *bytes, size_t size,
                         const char **ret_data, size_t *ret_size);

/* Decodes %XX, and '+' as blank where `plus`, in place. -EINVAL for a bad escape or
 * an encoded NUL. */
int wire_percent_decode(char *text, bool plus);
/* Appends with everything but unreserved characters and those in `keep` encoded. */
void wire_percent_encode(struct buf *out, const char *text, const char *keep);

/* The standard phrase of a status; "Unknown" for others. */
const char *wire_reason(int status);
