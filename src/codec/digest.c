#include "codec/digest.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/str.h"

struct hasher {
        EVP_MD_CTX *context;
        const char *prefix; /* "sha256:" */
};

/* Fetched once: an implicit fetch in every EVP_DigestInit costs more than a small hash. */
static const EVP_MD *sha256, *sha512;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fetch_algorithms(void)
{
        sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
        sha512 = EVP_MD_fetch(NULL, "SHA512", NULL);
        if (!sha256 || !sha512)
                abort(); /* an OpenSSL without SHA-2 is not one */
}

static struct hasher *create(bool is_sha512)
{
        struct hasher *hasher = new0(struct hasher);

        pthread_once(&once, fetch_algorithms);
        hasher->prefix = is_sha512 ? "sha512:" : "sha256:";
        hasher->context = EVP_MD_CTX_new();
        if (!hasher->context ||
            EVP_DigestInit_ex2(hasher->context, is_sha512 ? sha512 : sha256, NULL) != 1)
                abort(); /* no memory */
        return hasher;
}

struct hasher *hasher_create(void)
{
        return create(false);
}

struct hasher *hasher_create_for(const struct digest *expected)
{
        return create(str_starts(expected->text, "sha512:"));
}

void hasher_update(struct hasher *hasher, const void *data, size_t size)
{
        if (EVP_DigestUpdate(hasher->context, data, size) != 1)
                abort();
}

void hasher_finish(struct hasher *hasher, struct digest *ret)
{
        static const char digits[] = "0123456789abcdef";
        unsigned char bytes[EVP_MAX_MD_SIZE];
        unsigned size = 0;

        if (EVP_DigestFinal_ex(hasher->context, bytes, &size) != 1)
                abort();
        *ret = (struct digest){ 0 };
        char *p = stpcpy(ret->text, hasher->prefix);
        for (unsigned i = 0; i < size; i++) {
                *p++ = digits[bytes[i] >> 4];
                *p++ = digits[bytes[i] & 15];
        }
}

void hasher_destroy(struct hasher *hasher)
{
        if (!hasher)
                return;
        EVP_MD_CTX_free(hasher->context);
        free(hasher);
}

void digest_bytes(const void *data, size_t size, struct digest *ret)
{
        auto_hasher hasher = hasher_create();
        hasher_update(hasher, data, size);
        hasher_finish(hasher, ret);
}
