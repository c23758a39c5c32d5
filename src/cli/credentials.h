/* Logins to registries, in docker's config.json.
 *
 * `auths` of ~/.isle/config.json is looked at first, then that of
 * ~/.docker/config.json (unless a directory was named by --config or
 * ISLE_CONFIG). A registry without a plain entry is asked of the file's
 * credential helper, if it names one (`credHelpers`, `credsStore`). Passwords are
 * stored as docker does, in base64: the file is readable by its owner only.
 */
#pragma once

#include "base/err.h"
#include "cli/command.h"

#define CREDENTIALS_DOCKER_HUB "https://index.docker.io/v1/"

struct json_object;

/* The header "X-Registry-Auth: …" for the registry of an image's domain; empty
 * credentials where there is no login. Heap. */
char *credentials_header(const struct cli *cli, const char *domain);

/* Stores or forgets a login. `server` is a domain or CREDENTIALS_DOCKER_HUB.
 * forget returns 0 where there was none, 1 where it was removed. */
int credentials_store(const struct cli *cli, const char *server, const char *username,
                      const char *password, struct err *err);
int credentials_store_token(const struct cli *cli, const char *server, const char *username,
                            const char *token, struct err *err);
int credentials_forget(const struct cli *cli, const char *server, struct err *err);

/* Base64; `url` is the alphabet of RFC 4648 section 5. Heap. */
char *base64_encode(const void *data, size_t size, bool url);
/* Standard alphabet, padding optional. Heap, NUL-terminated; NULL where malformed. */
char *base64_decode(const char *text, size_t *ret_size);
