/* Answers of registries and token servers, parsed: pure, bounded, hostile input
 * (fuzz_registry). Sources: OCI distribution-spec 1.1; RFC 9110 section 11
 * (challenges); the token specification of github.com/distribution/distribution.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define REGISTRY_HEADER_MAX  8192
#define REGISTRY_TOKEN_MAX   (64u << 10)
#define REGISTRY_ERROR_TEXT  512
#define REGISTRY_TOKEN_TTL_S 60 /* where the server does not say */

/* The challenge of a WWW-Authenticate header that we can answer: Bearer rather
 * than Basic. Members are heap or NULL. */
struct registry_challenge {
        bool bearer, basic;
        char *realm, *service, *scope;
};
/* -EINVAL where nothing in it is usable. */
int registry_challenge_parse(const char *header, struct registry_challenge *ret);
void registry_challenge_finish(struct registry_challenge *challenge);

struct registry_token {
        char *token;
        int64_t expires_in_s; /* at least REGISTRY_TOKEN_TTL_S */
};
int registry_token_parse(const char *text, size_t size, struct registry_token *ret,
                         struct err *err);
/* Fit for a header line. */
bool registry_token_printable(const char *token);

/* "manifest unknown: manifest unknown" of an error body; the first error's code
 * is written too ("MANIFEST_UNKNOWN"). Both "" where the body is something else.
 * Control characters do not come through. */
struct registry_error {
        char code[64];
        char text[REGISTRY_ERROR_TEXT];
};
void registry_error_parse(const char *body, size_t size, struct registry_error *ret);

/* Upload progress, "0-1023" or "bytes=0-1023": how many bytes the registry has.
 * -EINVAL. */
int registry_range_parse(const char *header, uint64_t *ret_bytes);

/* "https", "http"; host[:port]; of an absolute URL. Heap. -EINVAL. No user info. */
struct registry_url {
        char *scheme, *host;
};
int registry_url_parse(const char *url, struct registry_url *ret);
void registry_url_finish(struct registry_url *url);

/* Heap: `text` fit for a query parameter. */
char *registry_query_escape(const char *text);
/* Heap: "Basic …" of user and password. */
char *registry_basic(const char *username, const char *password);
