/* An app in C with dualtune-edge as its sidecar: start it, wait for its ready line, ask, stop it.
 *
 * cc -std=c11 -Wall -Wextra -pthread sidecar.c -o sidecar
 * ./sidecar BUNDLE SOCKET REQUEST.json     prints the answer to a chat completion
 *
 * The sidecar ends with this process, also when it is killed: the pipe that is its stdin closes then.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct sidecar {
    pid_t pid;
    int in;     /* its stdin: held open as long as it shall live */
    FILE *log;  /* its stderr: a line of JSON for each event */
};

static void fail(const char *what) {
    perror(what);
    exit(EXIT_FAILURE);
}

static struct sidecar start(const char *bundle, const char *path) {
    int in[2], err[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) fail("pipe"); /* no other child inherits these ends */
    pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(err[1], STDERR_FILENO);
        execlp("dualtune-edge", "dualtune-edge", "serve", bundle, "--socket", path, "--until-stdin-closes", (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(err[1]);
    return (struct sidecar){pid, in[1], fdopen(err[0], "r")};
}

/* Reads on for ever: a sidecar whose log nobody reads stands still once the pipe is full. */
static void *drain(void *log) {
    char line[4096];
    while (fgets(line, sizeof line, log)) continue;
    return NULL;
}

static void wait_until_ready(struct sidecar *sidecar) {
    char line[4096];
    while (fgets(line, sizeof line, sidecar->log)) {
        if (strstr(line, "\"event\": \"ready\"")) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, drain, sidecar->log)) fail("pthread_create");
            pthread_detach(thread);
            return;
        }
        fputs(line, stderr); /* a warning, or the error that it ends with */
    }
    exit(EXIT_FAILURE);
}

static int connected(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        fputs("the socket's path is too long\n", stderr);
        exit(EXIT_FAILURE);
    }
    strcpy(address.sun_path, path);
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address)) fail(path);
    return connection;
}

static void send_all(int connection, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(connection, data, size, MSG_NOSIGNAL);
        if (sent < 0) fail("send");
        data += sent;
        size -= (size_t)sent;
    }
}

/* Prints the body of the response. HTTP/1.0: the connection's end is the body's. */
static int ask(const char *path, const char *body, size_t size) {
    char head[256], *response = NULL;
    size_t length = 0;
    int connection = connected(path), status = 0;
    int bytes = snprintf(head, sizeof head,
                         "POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n", size);
    send_all(connection, head, (size_t)bytes);
    send_all(connection, body, size);
    for (ssize_t got = 1; got > 0; length += (size_t)got) {
        response = realloc(response, length + 65536 + 1);
        if (!response) fail("realloc");
        got = read(connection, response + length, 65536);
        if (got < 0) fail("read");
    }
    close(connection);
    response[length] = '\0';
    char *text = strstr(response, "\r\n\r\n");
    sscanf(response, "HTTP/%*s %d", &status);
    puts(text ? text + 4 : "no response");
    free(response);
    return status;
}

static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail(path);
    *size = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*size + 1);
    if (!data || fread(data, 1, *size, file) != *size) fail(path);
    fclose(file);
    return data;
}

int main(int count, char **arguments) {
    if (count != 4) {
        fputs("usage: sidecar BUNDLE SOCKET REQUEST.json\n", stderr);
        return 2;
    }
    size_t size;
    char *body = read_file(arguments[3], &size);
    struct sidecar sidecar = start(arguments[1], arguments[2]);
    wait_until_ready(&sidecar);
    int status = ask(arguments[2], body, size);
    free(body);
    close(sidecar.in); /* a clean stop */
    int ended;
    if (waitpid(sidecar.pid, &ended, 0) < 0) fail("waitpid");
    return status == 200 && WIFEXITED(ended) && WEXITSTATUS(ended) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
