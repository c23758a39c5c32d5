/* Names of images as people write them: [domain/]path[:tag][@digest], with
 * docker.io and library/ left out where they are the default. The daemon has the
 * full grammar; here is what the command line needs to say before asking it. */
#pragma once

#include <stdbool.h>

#include "base/err.h"

struct image_name {
        char *domain; /* "docker.io", "localhost:5000" */
        char *path;   /* "library/busybox" */
        char *tag;    /* NULL: none given */
        char *digest; /* NULL: none given */
};

/* Errors as docker's: "invalid reference format: repository name (library/B) must
 * be lowercase". */
int image_name_parse(const char *text, struct image_name *ret, struct err *err);
void image_name_finish(struct image_name *name);
#define auto_image_name __attribute__((cleanup(image_name_finish))) struct image_name

/* "busybox", "localhost:5000/x": without tag and digest, defaults left out. Heap. */
char *image_name_familiar(const struct image_name *name);
/* As above with tag and digest; ":latest" where there is neither. Heap. */
char *image_name_full(const struct image_name *name);

/* 64 hexadecimal digits, or a digest: an identifier, not a name. */
bool image_name_is_id(const char *text);
