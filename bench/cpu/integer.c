/* Integer code as compilers make it. */
#include "measure.h"

static void sieve(uint64_t ops)
{
        static uint8_t composite[1 << 16];
        uint64_t primes = 0;
        for (uint64_t round = 0; round < ops; round++) {
                memset(composite, 0, sizeof(composite));
                for (unsigned i = 2; i < sizeof(composite); i++) {
                        if (composite[i])
                                continue;
                        primes++;
                        for (unsigned j = 2 * i; j < sizeof(composite); j += i)
                                composite[j] = 1;
                }
        }
        sink = primes;
}

static void hash(uint64_t ops)
{
        static uint64_t keys[1 << 12], counts[1 << 12];
        uint64_t seed = 88172645463325252u, found = 0;
        memset(keys, 0, sizeof(keys));
        for (uint64_t n = 0; n < ops; n++) {
                uint64_t key = next_random(&seed) % 3000 + 1, h = 14695981039346656037u;
                for (unsigned byte = 0; byte < 4; byte++)
                        h = (h ^ (key >> 8 * byte & 255)) * 1099511628211u;
                unsigned at = (unsigned)(h >> 20) & 4095;
                while (keys[at] && keys[at] != key)
                        at = (at + 1) & 4095;
                keys[at] = key;
                found += counts[at]++;
        }
        sink = found;
}

static int by_value(const void *a, const void *b)
{
        const uint32_t *x = a, *y = b;
        return (*x > *y) - (*x < *y);
}

#define SORTED 4096u
static void sort(uint64_t ops)
{
        static uint32_t values[SORTED];
        uint64_t seed = 1;
        for (uint64_t n = 0; n < ops; n += SORTED) {
                for (unsigned i = 0; i < SORTED; i++)
                        values[i] = (uint32_t)next_random(&seed);
                qsort(values, SORTED, sizeof(values[0]), by_value);
                sink = values[SORTED / 2];
        }
}

/* LZ77 with a hash of three bytes, the heart of deflate. */
#define TEXT (1u << 16)
static unsigned compress_text(const uint8_t *text, uint8_t *out)
{
        static uint32_t last[4096];
        unsigned at = 0, length = 0;
        memset(last, 0, sizeof(last));
        while (at + 4 < TEXT) {
                uint32_t head;
                memcpy(&head, text + at, 4);
                unsigned h = (head & 0xffffff) * 2654435761u >> 20;
                unsigned from = last[h], match = 0;
                last[h] = at;
                if (from < at)
                        while (match < 255 && at + match < TEXT &&
                               text[from + match] == text[at + match])
                                match++;
                if (match >= 4) {
                        out[length++] = 255;
                        out[length++] = (uint8_t)(at - from);
                        out[length++] = (uint8_t)((at - from) >> 8);
                        out[length++] = (uint8_t)match;
                        at += match;
                } else {
                        out[length++] = text[at++];
                }
        }
        return length;
}

static void compress(uint64_t ops)
{
        static uint8_t text[TEXT], out[TEXT * 2];
        static const char words[8][8] = { "the ", "guest ", "host ", "and ",
                                          "a ",   "page ",  "of ",   "in " };
        uint64_t seed = 7;
        for (unsigned at = 0; at < TEXT;) {
                const char *word = words[next_random(&seed) & 7];
                for (; *word && at < TEXT; word++)
                        text[at++] = (uint8_t)(next_random(&seed) % 16 ? *word : 'x');
        }
        for (uint64_t n = 0; n < ops; n += TEXT)
                sink = compress_text(text, out);
}

/* Counts key-value pairs and numbers of a document, byte by byte. */
static void json(uint64_t ops)
{
        static char text[1 << 15];
        unsigned length = 0;
        while (length + 64 < sizeof(text))
                length += (unsigned)sprintf(text + length,
                                            "{\"id\": %u, \"name\": \"item %u\", \"on\": true},\n",
                                            length, length * 7);
        for (uint64_t n = 0; n < ops; n += length) {
                uint64_t keys = 0, sum = 0;
                for (unsigned at = 0; at < length; at++) {
                        switch (text[at]) {
                        case '"':
                                while (text[++at] != '"')
                                        keys += text[at] == '\\';
                                break;
                        case ':':
                                keys++;
                                break;
                        case '0' ... '9':
                                for (uint64_t value = 0;;
                                     value = value * 10 + (uint64_t)(text[at++] - '0')) {
                                        if (text[at] < '0' || text[at] > '9') {
                                                sum += value;
                                                break;
                                        }
                                }
                                at--;
                                break;
                        default:
                                break;
                        }
                }
                sink = keys + sum;
        }
}

/* A byte code with an indirect jump per operation. */
static void interpret(uint64_t ops)
{
        static const uint8_t program[] = { 0, 1, 2, 3, 1, 4, 0, 5, 2, 1, 3, 6 };
        static void *const labels[] = { &&add, &&xor, &&shift, &&swap, &&mul, &&sub, &&jump };
        const uint8_t *pc = program;
        uint64_t a = 1, b = 3, t;
#define NEXT                                                                                       \
        if (--ops == 0)                                                                            \
                goto out;                                                                          \
        goto *labels[*pc++]
        NEXT;
add:
        a += b;
        NEXT;
        xor : b ^= a;
        NEXT;
shift:
        a = a << 7 | a >> 57;
        NEXT;
swap:
        t = a;
        a = b;
        b = t;
        NEXT;
mul:
        a *= 0x9e3779b97f4a7c15u;
        NEXT;
sub:
        b -= a;
        NEXT;
jump:
        pc = program;
        NEXT;
out:
        sink = a + b;
}

__attribute__((noinline)) static uint64_t fibonacci(unsigned n)
{
        return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static void recurse(uint64_t ops)
{
        for (uint64_t n = 0; n < ops; n += 21891) /* calls of fibonacci(20) */
                sink = fibonacci(20);
}

struct node {
        struct node *left, *right;
        uint64_t key;
};

static void free_tree(struct node *n)
{
        if (!n)
                return;
        free_tree(n->left);
        free_tree(n->right);
        free(n);
}

static void tree(uint64_t ops)
{
        uint64_t seed = 99;
        while (ops) {
                struct node *root = NULL;
                for (unsigned i = 0; i < 2000 && ops; i++, ops--) {
                        uint64_t key = next_random(&seed);
                        struct node **link = &root;
                        while (*link)
                                link = key < (*link)->key ? &(*link)->left : &(*link)->right;
                        *link = must(calloc(1, sizeof(**link)));
                        (*link)->key = key;
                }
                free_tree(root);
        }
}

static void divide(uint64_t ops)
{
        uint64_t seed = 5, sum = 0;
        for (uint64_t n = 0; n < ops; n++) {
                uint64_t a = next_random(&seed);
                sum += a / (a >> 40 | 1) + (uint32_t)a % ((uint32_t)(a >> 32) | 1);
        }
        sink = sum;
}

static void bits(uint64_t ops)
{
        uint64_t seed = 12, sum = 0;
        for (uint64_t n = 0; n < ops; n++) {
                uint64_t x = next_random(&seed), c = x;
                c = c - (c >> 1 & 0x5555555555555555u);
                c = (c & 0x3333333333333333u) + (c >> 2 & 0x3333333333333333u);
                c = (c + (c >> 4)) & 0x0f0f0f0f0f0f0f0fu;
                sum += (c * 0x0101010101010101u >> 56) + (uint64_t)__builtin_ctzll(x | 1u << 20);
                sum ^= __builtin_bswap64(x) + (uint64_t)__builtin_clzll(x | 1);
        }
        sink = sum;
}

static const struct work works[] = {
        { "integer", "sieve", 40, sieve },
        { "integer", "hash", 400000, hash },
        { "integer", "sort", 20 * SORTED, sort },
        { "integer", "compress", 20 * TEXT, compress },
        { "integer", "json", 3000000, json },
        { "integer", "interpret", 4000000, interpret },
        { "integer", "recurse", 60 * 21891, recurse },
        { "integer", "tree", 40000, tree },
        { "integer", "divide", 1000000, divide },
        { "integer", "bits", 2000000, bits },
};

int main(int argc, char **argv)
{
        return MEASURE(works, argc, argv);
}
