#include "cli/reference.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"

#define DEFAULT_DOMAIN  "docker.io"
#define DEFAULT_PREFIX  "library/"
#define HEX_DIGITS      "0123456789abcdef"
#define NAME_LENGTH_MAX 255
#define TAG_LENGTH_MAX  128

bool image_name_is_id(const char *text)
{
        const char *hex = str_after(text, "sha256:");
        hex = hex ? hex : text;
        return strlen(hex) == 64 && strspn(hex, HEX_DIGITS) == 64;
}

void image_name_finish(struct image_name *name)
{
        free(name->domain);
        free(name->path);
        free(name->tag);
        free(name->digest);
        *name = (struct image_name){ 0 };
}

/* One path component: alphanumeric runs joined by ".", "_", "__" or dashes. */
static bool component_valid(const char *text, size_t length)
{
        bool joined = true; /* a joint may not begin, end or follow another kind */
        for (size_t i = 0; i < length;) {
                if (islower((unsigned char)text[i]) || isdigit((unsigned char)text[i])) {
                        joined = false;
                        i++;
                        continue;
                }
                size_t step = text[i] == '.' ? 1 : strspn(text + i, text[i] == '_' ? "_" : "-");
                if (joined || step == 0 || (text[i] == '_' && step > 2))
                        return false;
                joined = true;
                i += step;
        }
        return length > 0 && !joined;
}

static bool path_valid(const char *path)
{
        for (;;) {
                size_t length = strcspn(path, "/");
                if (!component_valid(path, length))
                        return false;
                if (!path[length])
                        return true;
                path += length + 1;
        }
}

static bool domain_valid(const char *domain)
{
        size_t host = strspn(domain, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789.-");
        if (domain[0] == '[')
                host = strcspn(domain, "]") + 1;
        if (host == 0 || host > strlen(domain))
                return false;
        if (domain[host] == ':')
                return domain[host + 1] &&
                       strspn(domain + host + 1, "0123456789") == strlen(domain + host + 1);
        return !domain[host];
}

static bool tag_valid(const char *tag)
{
        if (!isalnum((unsigned char)tag[0]) && tag[0] != '_')
                return false;
        size_t length = 0;
        for (; tag[length]; length++)
                if (!isalnum((unsigned char)tag[length]) && !strchr("_.-", tag[length]))
                        return false;
        return length <= TAG_LENGTH_MAX;
}

static bool digest_valid(const char *digest)
{
        const char *hex = strchr(digest, ':');
        return hex && hex != digest && strlen(hex + 1) >= 32 &&
               strspn(hex + 1, HEX_DIGITS) == strlen(hex + 1);
}

/* Cuts `rest` at the domain, if the first component is one. */
static void split_domain(const char *name, struct image_name *ret)
{
        size_t first = strcspn(name, "/");
        bool domain = name[first] == '/' && (memchr(name, '.', first) || memchr(name, ':', first) ||
                                             (first == 9 && memcmp(name, "localhost", 9) == 0));
        for (size_t i = 0; name[first] == '/' && i < first; i++)
                domain = domain || isupper((unsigned char)name[i]);
        ret->domain = domain ? xstrndup(name, first) : xstrdup(DEFAULT_DOMAIN);
        const char *path = domain ? name + first + 1 : name;
        if (streq(ret->domain, "index.docker.io")) {
                free(ret->domain);
                ret->domain = xstrdup(DEFAULT_DOMAIN);
        }
        bool official = streq(ret->domain, DEFAULT_DOMAIN) && !strchr(path, '/');
        ret->path = xasprintf("%s%s", official ? DEFAULT_PREFIX : "", path);
}

int image_name_parse(const char *text, struct image_name *ret, struct err *err)
{
        auto_image_name name = { 0 };
        auto_free char *rest = xstrdup(text);
        if (strlen(text) == 64 && strspn(text, HEX_DIGITS) == 64)
                return err_plain(err, EINVAL,
                                 "invalid repository name (%s), cannot specify 64-byte hexadecimal "
                                 "strings",
                                 text);
        char *at = strchr(rest, '@');
        if (at) {
                name.digest = xstrdup(at + 1);
                *at = '\0';
        }
        char *slash = strrchr(rest, '/'), *colon = strrchr(rest, ':');
        if (colon && (!slash || colon > slash)) {
                name.tag = xstrdup(colon + 1);
                *colon = '\0';
        }
        split_domain(rest, &name);
        auto_free char *lower = xstrdup(name.path);
        for (char *c = lower; *c; c++)
                *c = (char)tolower((unsigned char)*c);
        if (!streq(lower, name.path) && path_valid(lower))
                return err_plain(err, EINVAL,
                                 "invalid reference format: repository name (%s) must be lowercase",
                                 name.path);
        if (!path_valid(name.path) || !domain_valid(name.domain) ||
            (name.tag && !tag_valid(name.tag)) || (name.digest && !digest_valid(name.digest)))
                return err_plain(err, EINVAL, "invalid reference format");
        if (strlen(name.path) > NAME_LENGTH_MAX)
                return err_plain(err, EINVAL, "repository name must not be more than %d characters",
                                 NAME_LENGTH_MAX);
        *ret = name;
        name = (struct image_name){ 0 };
        return 0;
}

char *image_name_familiar(const struct image_name *name)
{
        if (!streq(name->domain, DEFAULT_DOMAIN))
                return xasprintf("%s/%s", name->domain, name->path);
        const char *official = str_after(name->path, DEFAULT_PREFIX);
        return xstrdup(official && !strchr(official, '/') ? official : name->path);
}

char *image_name_full(const struct image_name *name)
{
        auto_free char *familiar = image_name_familiar(name);
        const char *tag = name->tag ? name->tag : name->digest ? NULL : "latest";
        return xasprintf("%s%s%s%s%s", familiar, tag ? ":" : "", tag ? tag : "",
                         name->digest ? "@" : "", name->digest ? name->digest : "");
}
