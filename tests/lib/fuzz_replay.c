/* Replays a corpus through a fuzz target: each argument is a file, or a
 * directory whose files are fed one by one. Exits 1 where nothing was fed, so
 * that a lost corpus is not mistaken for a passing one. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_LIMIT_BYTES (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
        FILE *file = fopen(path, "rb");
        if (!file) {
                perror(path);
                exit(1);
        }
        uint8_t *data = malloc(INPUT_LIMIT_BYTES);
        size_t size = fread(data, 1, INPUT_LIMIT_BYTES, file);
        fclose(file);
        /* An exact allocation lets the sanitizers see reads past the end. */
        uint8_t *exact = malloc(size ? size : 1);
        memcpy(exact, data, size);
        free(data);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        return 1;
}

static int replay_path(const char *path)
{
        struct stat st;
        if (stat(path, &st) < 0) {
                perror(path);
                exit(1);
        }
        if (!S_ISDIR(st.st_mode))
                return replay_file(path);
        int fed = 0;
        struct dirent **entries;
        int count = scandir(path, &entries, NULL, alphasort);
        for (int i = 0; i < count; i++) {
                char name[4096];
                if (entries[i]->d_name[0] != '.') {
                        snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
                        fed += replay_path(name);
                }
                free(entries[i]);
        }
        if (count >= 0)
                free(entries);
        return fed;
}

int main(int argc, char **argv)
{
        int fed = 0;
        for (int i = 1; i < argc; i++)
                fed += replay_path(argv[i]);
        printf("%d inputs replayed\n", fed);
        return fed > 0 ? 0 : 1;
}
