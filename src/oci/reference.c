#include "oci/reference.h"

#include <ctype.h>

#include "base/str.h"

#define OFFICIAL_PREFIX "library/"
#define LEGACY_DOMAIN   "index.docker.io"
#define IDENTIFIER_SIZE 64

static bool is_lower_alnum(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Length of the separator at s: one of "_" "." "__" or any run of "-"; 0 for none. */
static size_t separator_length(const char *s)
{
        if (*s == '.')
                return 1;
        if (*s == '_')
                return s[1] == '_' ? 2 : 1;
        return strspn(s, "-");
}

/* path-component ("/" path-component)*, where path-component is
 * [a-z0-9]+ (separator [a-z0-9]+)* */
static bool path_valid(const char *s)
{
        while (is_lower_alnum(*s)) {
                while (is_lower_alnum(*s))
                        s++;
                if (!*s)
                        return true;
                s += *s == '/' ? 1 : separator_length(s);
        }
        return false;
}

/* host [":" port], where host is dotted labels or an IPv6 address in brackets. */
static bool domain_valid(const char *s)
{
        if (*s == '[') {
                size_t length = strspn(s + 1, "0123456789abcdefABCDEF:");
                if (length < 2 || s[1 + length] != ']')
                        return false;
                s += length + 2;
        } else {
                const char *start = s;
                for (; isalnum((unsigned char)*s) || *s == '-' || *s == '.'; s++) {
                        bool edge = s == start || s[-1] == '.' || s[1] == '.' || s[1] == ':' ||
                                    s[1] == '\0';
                        if (edge && !isalnum((unsigned char)*s))
                                return false;
                }
                if (s == start)
                        return false;
        }
        if (*s == ':') {
                size_t length = strspn(s + 1, "0123456789");
                if (length == 0)
                        return false;
                s += length + 1;
        }
        return *s == '\0';
}

bool oci_tag_valid(const char *tag)
{
        if (!isalnum((unsigned char)*tag) && *tag != '_')
                return false;
        size_t length = strlen(tag);
        for (const char *c = tag; *c; c++)
                if (!isalnum((unsigned char)*c) && !strchr("_.-", *c))
                        return false;
        return length <= OCI_TAG_LENGTH_MAX;
}

static bool has_upper(const char *s, size_t length)
{
        for (size_t i = 0; i < length; i++)
                if (isupper((unsigned char)s[i]))
                        return true;
        return false;
}

/* Length of the domain at the start of a name, 0 where it has none. What stands
 * before the first slash is one if it could not be a path component of Docker
 * Hub: it has a dot, a colon, an upper-case letter, or is "localhost". */
static size_t domain_length(const char *name)
{
        const char *slash = strchr(name, '/');
        if (!slash)
                return 0;
        size_t length = (size_t)(slash - name);
        bool marked = memchr(name, '.', length) || memchr(name, ':', length) ||
                      has_upper(name, length);
        bool local = length == 9 && memcmp(name, "localhost", 9) == 0;
        return marked || local ? length : 0;
}

static bool is_identifier(const char *text)
{
        return strlen(text) == IDENTIFIER_SIZE &&
               strspn(text, "0123456789abcdef") == IDENTIFIER_SIZE;
}

static int invalid(const char *text, struct err *err)
{
        return err_plain(err, EINVAL, "invalid reference format: '%.300s'", text);
}

/* Cuts "@digest" and ":tag" off the end of `name` (a copy, past the domain). */
static int cut_tag_and_digest(const char *text, char *name, struct oci_reference *reference,
                              struct err *err)
{
        char *at = strchr(name, '@');
        if (at) {
                *at = '\0';
                struct err inner;
                if (digest_parse(at + 1, &reference->digest, &inner) < 0)
                        return err_plain(err, EINVAL, "invalid reference format: %s",
                                         err_text(&inner));
        }
        char *colon = strrchr(name, ':');
        if (colon) {
                if (!oci_tag_valid(colon + 1))
                        return invalid(text, err);
                reference->tag = xstrdup(colon + 1);
                *colon = '\0';
        }
        return 0;
}

static int parse(const char *text, struct oci_reference *reference, struct err *err)
{
        if (is_identifier(text))
                return err_plain(err, EINVAL,
                                 "invalid repository name (%s), cannot specify 64-byte hexadecimal "
                                 "strings",
                                 text);
        if (strlen(text) > OCI_REFERENCE_LENGTH_MAX)
                return err_plain(err, EINVAL, "invalid reference format: longer than %d characters",
                                 OCI_REFERENCE_LENGTH_MAX);

        size_t length = domain_length(text);
        auto_free char *name = xstrdup(length > 0 ? text + length + 1 : text);
        int r = cut_tag_and_digest(text, name, reference, err);
        if (r < 0)
                return r;
        if (has_upper(name, strlen(name)))
                return err_plain(err, EINVAL,
                                 "invalid reference format: repository name (%s) must be lowercase",
                                 name);

        reference->domain = length > 0 ? xstrndup(text, length) : xstrdup(OCI_DEFAULT_DOMAIN);
        if (streq(reference->domain, LEGACY_DOMAIN)) {
                free(reference->domain);
                reference->domain = xstrdup(OCI_DEFAULT_DOMAIN);
        }
        bool official = streq(reference->domain, OCI_DEFAULT_DOMAIN) && !strchr(name, '/');
        reference->path = official ? xasprintf(OFFICIAL_PREFIX "%s", name) : take_ptr(name);
        if (!path_valid(reference->path) || !domain_valid(reference->domain))
                return invalid(text, err);
        if (strlen(reference->domain) + 1 + strlen(reference->path) > OCI_NAME_LENGTH_MAX)
                return err_plain(err, EINVAL, "repository name must not be more than %d characters",
                                 OCI_NAME_LENGTH_MAX);
        return 0;
}

int oci_reference_parse_name(const char *text, struct oci_reference *ret, struct err *err)
{
        struct oci_reference reference = { 0 };
        int r = parse(text, &reference, err);
        if (r < 0) {
                oci_reference_finish(&reference);
                return r;
        }
        *ret = reference;
        return 0;
}

int oci_reference_parse(const char *text, struct oci_reference *ret, struct err *err)
{
        int r = oci_reference_parse_name(text, ret, err);
        if (r < 0)
                return r;
        if (!ret->tag && !digest_is_set(&ret->digest))
                ret->tag = xstrdup(OCI_DEFAULT_TAG);
        return 0;
}

void oci_reference_finish(struct oci_reference *reference)
{
        free(reference->domain);
        free(reference->path);
        free(reference->tag);
        *reference = (struct oci_reference){ 0 };
}

void oci_reference_copy(const struct oci_reference *reference, struct oci_reference *ret)
{
        *ret = (struct oci_reference){
                .domain = xstrdup(reference->domain),
                .path = xstrdup(reference->path),
                .tag = reference->tag ? xstrdup(reference->tag) : NULL,
                .digest = reference->digest,
        };
}

static char *with_tag_and_digest(char *taken_name, const struct oci_reference *reference)
{
        auto_free char *name = taken_name;
        bool digest = digest_is_set(&reference->digest);
        return xasprintf("%s%s%s%s%s", name, reference->tag ? ":" : "",
                         reference->tag ? reference->tag : "", digest ? "@" : "",
                         reference->digest.text);
}

char *oci_reference_name(const struct oci_reference *reference)
{
        return xasprintf("%s/%s", reference->domain, reference->path);
}

/* The short form only where it would be read back as the same name. */
char *oci_reference_familiar_name(const struct oci_reference *reference)
{
        if (!streq(reference->domain, OCI_DEFAULT_DOMAIN))
                return oci_reference_name(reference);
        const char *rest = str_after(reference->path, OFFICIAL_PREFIX);
        if (rest && !strchr(rest, '/'))
                return is_identifier(rest) ? xstrdup(reference->path) : xstrdup(rest);
        if (domain_length(reference->path) > 0)
                return oci_reference_name(reference);
        return xstrdup(reference->path);
}

char *oci_reference_format(const struct oci_reference *reference)
{
        return with_tag_and_digest(oci_reference_name(reference), reference);
}

char *oci_reference_familiar(const struct oci_reference *reference)
{
        return with_tag_and_digest(oci_reference_familiar_name(reference), reference);
}

const char *oci_reference_host(const struct oci_reference *reference)
{
        if (streq(reference->domain, OCI_DEFAULT_DOMAIN))
                return "registry-1.docker.io";
        return reference->domain;
}
