// Packs two packages for npm, wsecho and its binary: node packaging/npm/pack.js BINARY FOLDER
'use strict';

const { execFileSync } = require('node:child_process');
const { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join, resolve } = require('node:path');

const [binary, folder] = process.argv.slice(2).map((path) => resolve(path));
const root = join(__dirname, '../..');
const metadata = execFileSync('cargo', ['metadata', '--no-deps', '--format-version=1'], { cwd: root });
const { version, description, license, repository } = JSON.parse(metadata).packages[0];
const common = { version, description, license, repository: repository ?? undefined };

function pack(manifest, files) {
  const stage = mkdtempSync(join(tmpdir(), 'wsecho-npm-'));
  for (const [to, from] of Object.entries({ ...files, LICENSE: join(root, 'LICENSE') })) cpSync(from, join(stage, to));
  writeFileSync(join(stage, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  execFileSync('npm', ['pack', '--silent', '--pack-destination', folder], { cwd: stage, stdio: 'inherit' });
  rmSync(stage, { recursive: true });
}

const platforms = ['wsecho-linux-x64'];
const platform = `wsecho-${process.platform}-${process.arch}`;
pack(
  { name: platform, ...common, os: [process.platform], cpu: [process.arch], preferUnplugged: true, files: ['bin', 'NOTICES'] },
  { 'bin/wsecho': binary, NOTICES: join(root, 'packaging/NOTICES'), 'README.md': join(__dirname, 'README.md') },
);
const manifest = JSON.parse(readFileSync(join(__dirname, 'package.json')));
const files = [...manifest.files, 'README.md'];
pack(
  { ...manifest, ...common, optionalDependencies: Object.fromEntries(platforms.map((name) => [name, version])) },
  Object.fromEntries(files.map((file) => [file, join(__dirname, file)])),
);
