/* Answers of registries: challenges, tokens, errors, ranges, addresses. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "image/registry_answers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void headers(const char *text)
{
        struct registry_challenge challenge = { 0 };
        if (registry_challenge_parse(text, &challenge) == 0 && !challenge.bearer &&
            !challenge.basic)
                abort();
        registry_challenge_finish(&challenge);
        uint64_t bytes;
        (void)registry_range_parse(text, &bytes);
        struct registry_url url = { 0 };
        if (registry_url_parse(text, &url) == 0 &&
            ((strcmp(url.scheme, "http") != 0 && strcmp(url.scheme, "https") != 0) ||
             strchr(url.host, '@') || strchr(url.host, '/')))
                abort();
        registry_url_finish(&url);
        free(registry_query_escape(text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct err err;
        struct registry_token token = { 0 };
        if (registry_token_parse((const char *)data, size, &token, &err) == 0) {
                if (!registry_token_printable(token.token) ||
                    token.expires_in_s < REGISTRY_TOKEN_TTL_S)
                        abort();
                free(token.token);
        }
        struct registry_error error;
        registry_error_parse((const char *)data, size, &error);
        for (const char *p = error.text; *p; p++)
                if ((unsigned char)*p < 0x20)
                        abort();
        char *text = malloc(size + 1);
        memcpy(text, data, size);
        text[size] = '\0';
        headers(text);
        free(text);
        return 0;
}
