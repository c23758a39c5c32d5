#include "engine/names.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/rand.h"
#include "base/str.h"

#define NAME_LENGTH_MAX 128

static const char *const qualities[] = {
        "able",    "agile",   "airy",   "amber",   "ample",    "ardent", "azure",  "balmy",
        "bold",    "bonny",   "brave",  "breezy",  "bright",   "brisk",  "calm",   "candid",
        "cheery",  "civil",   "clear",  "clever",  "comely",   "coral",  "cosy",   "crisp",
        "curious", "daring",  "dapper", "deft",    "dewy",     "eager",  "early",  "earnest",
        "easy",    "elfin",   "fair",   "fleet",   "floral",   "fond",   "frank",  "free",
        "fresh",   "gentle",  "genial", "gilded",  "glad",     "golden", "hale",   "handy",
        "happy",   "hardy",   "hazel",  "hearty",  "humble",   "ideal",  "jade",   "jolly",
        "jovial",  "keen",    "kind",   "lively",  "loyal",    "lucid",  "lucky",  "lunar",
        "mellow",  "merry",   "mild",   "misty",   "modest",   "mossy",  "neat",   "nimble",
        "noble",   "opal",    "open",   "patient", "pearly",   "placid", "plucky", "polite",
        "proud",   "prudent", "quick",  "quiet",   "ready",    "rosy",   "russet", "sage",
        "serene",  "shiny",   "silent", "silver",  "smart",    "snowy",  "solar",  "solid",
        "spry",    "stable",  "staid",  "starry",  "steady",   "stout",  "sunny",  "sure",
        "swift",   "tawny",   "tender", "tidy",    "tranquil", "trim",   "trusty", "upbeat",
        "urbane",  "valiant", "vernal", "vivid",   "warm",     "wise",   "witty",  "zesty",
};

static const char *const beings[] = {
        "acacia",    "alder",     "aspen",     "auk",       "avocet",    "balsam",    "baobab",
        "beech",     "birch",     "bittern",   "bluebird",  "bulbul",    "bunting",   "buzzard",
        "cedar",     "chestnut",  "chough",    "condor",    "coot",      "cormorant", "cotinga",
        "crane",     "crossbill", "cuckoo",    "curlew",    "cypress",   "dipper",    "dotterel",
        "dove",      "dunlin",    "dunnock",   "egret",     "eider",     "elder",     "elm",
        "falcon",    "fieldfare", "finch",     "firecrest", "flamingo",  "fulmar",    "gannet",
        "ginkgo",    "godwit",    "goldcrest", "goshawk",   "grebe",     "guillemot", "gull",
        "harrier",   "hawthorn",  "hazel",     "heron",     "hobby",     "holly",     "hoopoe",
        "hornbeam",  "ibis",      "jackdaw",   "jay",       "juniper",   "kestrel",   "kingfisher",
        "kite",      "kittiwake", "knot",      "lapwing",   "larch",     "lark",      "laurel",
        "linden",    "linnet",    "magpie",    "mallard",   "maple",     "martin",    "merlin",
        "myrtle",    "nightjar",  "nuthatch",  "oak",       "olive",     "oriole",    "osprey",
        "ouzel",     "owl",       "petrel",    "pine",      "pipit",     "plover",    "poplar",
        "puffin",    "quail",     "rail",      "raven",     "redstart",  "redwing",   "robin",
        "roller",    "rook",      "rowan",     "ruff",      "sandpiper", "serin",     "shrike",
        "siskin",    "skylark",   "snipe",     "sorrel",    "sparrow",   "spruce",    "starling",
        "stonechat", "stork",     "swallow",   "swan",      "swift",     "sycamore",  "teal",
        "tern",      "thrush",    "twite",     "wagtail",   "warbler",   "waxwing",   "wheatear",
        "whimbrel",  "willow",    "woodcock",  "wren",      "yew",
};

bool name_is_valid(const char *name)
{
        size_t length = strlen(name);
        if (length < 2 || length > NAME_LENGTH_MAX || !isalnum((unsigned char)name[0]))
                return false;
        for (const char *c = name; *c; c++)
                if (!isalnum((unsigned char)*c) && !strchr("_.-", *c))
                        return false;
        return true;
}

int name_check(const char *name, struct err *err)
{
        if (name_is_valid(name))
                return 0;
        return err_plain(
                err, EINVAL,
                "Invalid container name (%.200s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
                name);
}

char *name_draw(unsigned attempt)
{
        const char *quality = qualities[rand_u64() % ELEMENTS(qualities)];
        const char *being = beings[rand_u64() % ELEMENTS(beings)];
        if (attempt)
                return xasprintf("%s_%s%u", quality, being, (unsigned)(rand_u64() % 1000));
        return xasprintf("%s_%s", quality, being);
}
