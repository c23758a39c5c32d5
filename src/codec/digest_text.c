#include "codec/digest.h"

#include "base/str.h"

static const struct {
        const char *prefix;
        size_t hex_length;
} algorithms[] = {
        { "sha256:", 64 },
        { "sha512:", 128 },
};

int digest_parse(const char *text, struct digest *ret, struct err *err)
{
        for (size_t i = 0; i < ELEMENTS(algorithms); i++) {
                const char *hex = str_after(text, algorithms[i].prefix);
                if (!hex)
                        continue;
                if (strlen(hex) != algorithms[i].hex_length ||
                    strspn(hex, "0123456789abcdef") != algorithms[i].hex_length)
                        return err_plain(err, EINVAL,
                                         "'%.150s' is not a digest: %s needs %zu lower-case "
                                         "hexadecimal digits",
                                         text, algorithms[i].prefix, algorithms[i].hex_length);
                struct digest digest = { 0 };
                strcpy(digest.text, text);
                *ret = digest;
                return 0;
        }
        return err_plain(err, EINVAL, "'%.150s' is not a digest (known: sha256:…, sha512:…)", text);
}

const char *digest_hex(const struct digest *digest)
{
        const char *colon = strchr(digest->text, ':');
        return colon ? colon + 1 : digest->text;
}

int digest_check(const struct digest *expected, const struct digest *found, const char *what,
                 struct err *err)
{
        if (digest_equal(expected, found))
                return 0;
        return err_plain(err, EBADMSG,
                         "%s: content is damaged: expected %s, found %s; get it again from a "
                         "source that is intact",
                         what, expected->text, found->text);
}
