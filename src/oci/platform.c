#include "oci/platform.h"

#include <ctype.h>
#include <sys/utsname.h>

#include "base/str.h"
#include "codec/json.h"

static const struct json_field platform_fields[] = {
        JSON_FIELD(struct oci_platform, "architecture", JSON_STRING, architecture, 0),
        JSON_FIELD(struct oci_platform, "os", JSON_STRING, os, 0),
        JSON_FIELD(struct oci_platform, "os.version", JSON_STRING, os_version, 0),
        JSON_FIELD(struct oci_platform, "os.features", JSON_STRV, os_features, 0),
        JSON_FIELD(struct oci_platform, "variant", JSON_STRING, variant, 0),
        JSON_FIELD(struct oci_platform, "features", JSON_STRV, features, 0),
};
const struct json_shape oci_platform_shape = JSON_SHAPE("platform", struct oci_platform,
                                                        platform_fields);

/* How architectures are also written, and what variant that implies. */
static const struct {
        const char *spelling, *architecture;
        int level;
} spellings[] = {
        { "x86_64", "amd64", 0 },    { "x86-64", "amd64", 0 }, { "i386", "386", 0 },
        { "i486", "386", 0 },        { "i586", "386", 0 },     { "i686", "386", 0 },
        { "aarch64", "arm64", 0 },   { "armhf", "arm", 7 },    { "armel", "arm", 6 },
        { "armv7l", "arm", 7 },      { "armv6l", "arm", 6 },   { "ppc64el", "ppc64le", 0 },
        { "ppc64le", "ppc64le", 0 },
};

/* The variant that goes without saying. */
static const struct {
        const char *architecture;
        int level;
} default_levels[] = { { "amd64", 1 }, { "arm64", 8 }, { "arm", 7 } };

/* Architectures whose programs others also run, as a second choice. */
static const struct {
        const char *wanted, *offer;
        int offer_level_max;
} compatible[] = { { "amd64", "386", 99 }, { "arm64", "arm", 8 } };

struct normal {
        const char *architecture;
        int level; /* the N of variant "vN"; -1 for a variant of another form */
};

static int default_level(const char *architecture)
{
        for (size_t i = 0; i < ELEMENTS(default_levels); i++)
                if (streq(default_levels[i].architecture, architecture))
                        return default_levels[i].level;
        return 0;
}

static struct normal normalize(const char *architecture, const char *variant)
{
        struct normal n = { architecture ? architecture : "", 0 };

        for (size_t i = 0; i < ELEMENTS(spellings); i++) {
                if (strcasecmp(n.architecture, spellings[i].spelling) != 0)
                        continue;
                n.architecture = spellings[i].architecture;
                n.level = spellings[i].level;
                break;
        }
        if (!str_empty(variant)) {
                uint32_t level;
                const char *digits = variant[0] == 'v' ? variant + 1 : variant;
                n.level = str_to_u32(digits, &level) == 0 && level < 100 ? (int)level : -1;
        }
        if (n.level == 0)
                n.level = default_level(n.architecture);
        return n;
}

void oci_platform_finish(struct oci_platform *platform)
{
        json_free(&oci_platform_shape, platform);
}

static void set_normal(struct oci_platform *platform, const char *os, struct normal n)
{
        *platform = (struct oci_platform){ 0 };
        platform->os = xstrdup(os);
        platform->architecture = xstrdup(n.architecture);
        bool implied = n.level == default_level(n.architecture) && !streq(n.architecture, "arm");
        if (n.level > 0 && !implied)
                platform->variant = xasprintf("v%d", n.level);
}

void oci_platform_host(struct oci_platform *ret)
{
        struct utsname name;
        const char *machine = uname(&name) == 0 ? name.machine : "unknown";
        set_normal(ret, "linux", normalize(machine, NULL));
}

static bool is_word(const char *s)
{
        size_t length = strlen(s);
        if (length == 0 || length > 24)
                return false;
        for (; *s; s++)
                if (!isalnum((unsigned char)*s) && !strchr("-_.", *s))
                        return false;
        return true;
}

int oci_platform_parse(const char *text, struct oci_platform *ret, struct err *err)
{
        auto_strv parts = strlen(text) < OCI_PLATFORM_TEXT_SIZE ? str_split(text, '/') : NULL;
        size_t length = strv_length(parts);
        bool valid = length >= 1 && length <= 3;

        for (size_t i = 0; valid && i < length; i++)
                valid = is_word(parts[i]);
        if (!valid)
                return err_plain(err, EINVAL, "'%.100s' is not a platform (as linux/amd64)", text);

        const char *os = length == 1 ? "linux" : parts[0];
        const char *architecture = length == 1 ? parts[0] : parts[1];
        const char *variant = length == 3 ? parts[2] : NULL;
        struct normal n = normalize(architecture, variant);
        set_normal(ret, os, n);
        if (n.level < 0)
                ret->variant = xstrdup(variant);
        return 0;
}

void oci_platform_format(const struct oci_platform *platform, char text[OCI_PLATFORM_TEXT_SIZE])
{
        snprintf(text, OCI_PLATFORM_TEXT_SIZE, "%s/%s%s%s",
                 str_empty(platform->os) ? "unknown" : platform->os,
                 str_empty(platform->architecture) ? "unknown" : platform->architecture,
                 str_empty(platform->variant) ? "" : "/",
                 str_empty(platform->variant) ? "" : platform->variant);
}

int oci_platform_score(const struct oci_platform *offer, const struct oci_platform *wanted)
{
        struct normal o = normalize(offer->architecture, offer->variant);
        struct normal w = normalize(wanted->architecture, wanted->variant);

        if (!streq(offer->os, wanted->os))
                return 0;
        if (streq(o.architecture, w.architecture)) {
                if (o.level < 0 || w.level < 0)
                        return streq(offer->variant, wanted->variant) ? 1000 : 0;
                return o.level <= w.level ? 1000 - (w.level - o.level) : 0;
        }
        for (size_t i = 0; i < ELEMENTS(compatible); i++)
                if (streq(compatible[i].wanted, w.architecture) &&
                    streq(compatible[i].offer, o.architecture) && o.level >= 0 &&
                    o.level <= compatible[i].offer_level_max)
                        return 500 + o.level;
        return 0;
}
