/* Content digests, "sha256:<64 hex>" or "sha512:<128 hex>" (OCI image-spec,
 * descriptor.md). Lower-case hex only, as the specification demands, so two
 * digests are equal when their texts are.
 *
 * `struct digest` is plain memory: copy by assignment, compare with
 * digest_equal(). A zeroed one holds "" and is not a digest. A `struct hasher`
 * belongs to one thread at a time. SHA is OpenSSL's (EVP), which uses the CPU's
 * SHA extensions. digest_parse() and digest_hex() need no OpenSSL.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/auto.h"
#include "base/err.h"

#define DIGEST_TEXT_SIZE 136 /* "sha512:" + 128 + NUL */

struct digest {
        char text[DIGEST_TEXT_SIZE];
};

/* -EINVAL for anything but a supported algorithm and the right number of
 * lower-case hex digits. */
int digest_parse(const char *text, struct digest *ret, struct err *err);

/* The part after the colon. */
const char *digest_hex(const struct digest *digest);

static inline bool digest_equal(const struct digest *a, const struct digest *b)
{
        return strcmp(a->text, b->text) == 0;
}

static inline bool digest_is_set(const struct digest *digest)
{
        return digest->text[0] != '\0';
}

struct hasher;

/* SHA-256. Never fails (aborts without memory). */
struct hasher *hasher_create(void);
/* With the algorithm of the digest that is expected. */
struct hasher *hasher_create_for(const struct digest *expected);
void hasher_update(struct hasher *hasher, const void *data, size_t size);
/* The digest of what was given so far. Afterwards only hasher_destroy may be called. */
void hasher_finish(struct hasher *hasher, struct digest *ret);
void hasher_destroy(struct hasher *hasher);

DEFINE_CLEANUP(auto_hasher_cleanup, struct hasher *, hasher_destroy)
/* auto_hasher hasher = hasher_create(); */
#define auto_hasher CLEANUP(auto_hasher_cleanup) struct hasher *

/* SHA-256 of a whole. */
void digest_bytes(const void *data, size_t size, struct digest *ret);

/* 0, or -EBADMSG with a story naming `what`, both digests and the remedy. */
int digest_check(const struct digest *expected, const struct digest *found, const char *what,
                 struct err *err);
